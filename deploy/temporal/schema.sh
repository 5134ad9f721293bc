#!/bin/sh
# Make or upgrade the two databases of Temporal. Doing it again does nothing.
set -eu

for database in temporal temporal_visibility; do
  folder=${database#temporal_}
  tool="temporal-sql-tool --plugin postgres12 --ep postgres --port 5432 --user pinflow --db $database"
  $tool create
  $tool setup-schema -v 0.0 # leaves a newer version as it is
  $tool update-schema -d "/etc/temporal/schema/postgresql/v12/$folder/versioned"
done
