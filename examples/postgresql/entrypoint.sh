#!/bin/bash
# Makes the cluster at the first start, then becomes the server.
set -euo pipefail

if [ "$1" = postgres ] && [ "$(id -u)" = 0 ]; then
	chown postgres "$PGDATA"
	chmod 700 "$PGDATA"
	exec setpriv --reuid=postgres --regid=postgres --init-groups "$BASH_SOURCE" "$@"
fi

if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
	: "${POSTGRES_PASSWORD:?choose one with --env POSTGRES_PASSWORD=}"
	initdb --username=postgres --pwfile=<(echo "$POSTGRES_PASSWORD") --auth-local=trust --auth-host=scram-sha-256 --no-sync
	unset POSTGRES_PASSWORD
	pg_ctl -D "$PGDATA" -o "-c listen_addresses='' -p ${PGPORT:-5432}" -w start
	for script in /docker-entrypoint-initdb.d/*.sql; do
		psql -v ON_ERROR_STOP=1 --username=postgres --no-psqlrc -f "$script"
	done
	pg_ctl -D "$PGDATA" -m fast -w stop
fi
exec "$@"
