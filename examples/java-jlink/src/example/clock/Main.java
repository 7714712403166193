package example.clock;

import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.time.Clock;
import java.time.Instant;

/** Tells the time over HTTP. */
public final class Main {
    private Main() {}

    public static void main(String[] args) throws IOException {
        var address = new InetSocketAddress(System.getenv("HOST"), Integer.parseInt(System.getenv("PORT")));
        var clock = Clock.systemUTC();
        var server = HttpServer.create(address, 0);
        server.createContext("/now", exchange -> {
            byte[] body = (Instant.now(clock) + "\n").getBytes(StandardCharsets.UTF_8);
            exchange.sendResponseHeaders(200, body.length);
            try (var out = exchange.getResponseBody()) {
                out.write(body);
            }
        });
        server.start();
        System.out.println("clock listens on " + address);
    }
}
