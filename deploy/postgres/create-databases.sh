#!/bin/bash
# Makes role, database and extensions of the named services, their passwords from /run/secrets/<service>.database-password.
# Runs as the superuser of PGHOST; running it again sets passwords and makes what is missing.
set -euo pipefail
sql=$(dirname "$0")
PGPASSWORD=$(cat /run/secrets/postgres-password)
export PGPASSWORD
for service in "$@"; do
    psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --set service="$service" \
        --set password="$(cat "/run/secrets/$service.database-password")" --file "$sql/database.sql" postgres
done
# The owner of a database may not install pgvector's operator classes; the superuser does it.
psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --command 'CREATE EXTENSION IF NOT EXISTS vector' agents
echo "$# databases"
