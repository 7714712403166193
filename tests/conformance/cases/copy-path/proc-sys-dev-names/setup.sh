mkdir -p context
cd context
mkdir proc sys dev run
printf 1 > proc/version
printf 2 > sys/kernel
printf 3 > dev/x
printf 4 > run/y
printf 5 > .dockerenv
