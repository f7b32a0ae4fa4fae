-- Roles of the Clinical Trial Platform. The document names none: it has a dedicated role for the Lambda functions,
-- and credentials kept as secrets. Passwords arrive as SCRAM secrets, made outside the database.

-- Owns the schema: migrations.
CREATE ROLE app_admin LOGIN PASSWORD :'verifier_app_admin';
-- The Lambda functions.
CREATE ROLE app_readwrite LOGIN PASSWORD :'verifier_app_readwrite';
-- Study reports.
CREATE ROLE app_readonly LOGIN PASSWORD :'verifier_app_readonly';
-- HIPAA audits: reads everything, changes nothing.
CREATE ROLE app_auditor LOGIN PASSWORD :'verifier_app_auditor' IN ROLE pg_read_all_data;

GRANT CREATE ON DATABASE :"database" TO app_admin;
