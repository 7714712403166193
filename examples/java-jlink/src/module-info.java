module example.clock {
    requires jdk.httpserver;
}
