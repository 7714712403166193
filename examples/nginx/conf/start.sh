#!/bin/sh
# Starts nginx on the address that LISTEN says.
set -eu
sed "s|@LISTEN@|$LISTEN|" /etc/nginx/nginx.conf.in >/run/nginx/nginx.conf
exec nginx -c /run/nginx/nginx.conf "$@"
