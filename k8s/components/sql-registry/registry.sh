# Read by the image of PostgreSQL when its volume is empty.
psql -v ON_ERROR_STOP=1 -v password="$REGISTRY_PASSWORD" -U "$POSTGRES_USER" -d postgres <<'SQL'
CREATE ROLE features LOGIN PASSWORD :'password';
CREATE DATABASE features OWNER features;
SQL
