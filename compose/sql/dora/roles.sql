-- Roles of the DORA Compliance System. The document says "SCRAM-SHA-256 + role-based access" and names none:
-- these are the least that its parts need. Passwords arrive as SCRAM secrets, made outside the database.

-- Owns the schema: migrations.
CREATE ROLE app_admin LOGIN PASSWORD :'verifier_app_admin';
-- The application's services and agents.
CREATE ROLE app_readwrite LOGIN PASSWORD :'verifier_app_readwrite';
-- Dashboards and reports.
CREATE ROLE app_readonly LOGIN PASSWORD :'verifier_app_readonly';
-- What an auditor may see: everything, changing nothing.
CREATE ROLE app_auditor LOGIN PASSWORD :'verifier_app_auditor' IN ROLE pg_read_all_data;
-- Logical and physical backups.
CREATE ROLE app_backup LOGIN REPLICATION PASSWORD :'verifier_app_backup' IN ROLE pg_read_all_data;

GRANT CREATE ON DATABASE :"database" TO app_admin;
