-- The roles of the document. Passwords arrive as SCRAM secrets, made outside the database.

-- The managed service's administrator: makes roles and databases, but is no superuser.
CREATE ROLE rds_superuser LOGIN CREATEROLE CREATEDB PASSWORD :'verifier_rds_superuser'
    IN ROLE pg_monitor, pg_signal_backend;

-- Owns the schema and everything in it.
CREATE ROLE app_admin LOGIN PASSWORD :'verifier_app_admin';
-- The Risk API and the batch jobs.
CREATE ROLE app_readwrite LOGIN PASSWORD :'verifier_app_readwrite';
-- The web application and analytics.
CREATE ROLE app_readonly LOGIN PASSWORD :'verifier_app_readonly';
-- Logical and physical backups: reads everything, writes nothing.
CREATE ROLE app_backup LOGIN REPLICATION PASSWORD :'verifier_app_backup' IN ROLE pg_read_all_data;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_backup_start(text, boolean) TO app_backup;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_backup_stop(boolean) TO app_backup;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_switch_wal() TO app_backup;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_create_restore_point(text) TO app_backup;

GRANT app_admin TO rds_superuser;

GRANT CREATE ON DATABASE :"database" TO app_admin;
