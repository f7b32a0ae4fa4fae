-- The roles of the document. Passwords arrive as SCRAM secrets, made outside the database.

-- Full access: schema changes, migrations. Owns the schema.
CREATE ROLE admin_user LOGIN CREATEROLE PASSWORD :'verifier_admin_user';
-- The application's backend (Flask): reads and writes.
CREATE ROLE app_user LOGIN PASSWORD :'verifier_app_user';
-- Dashboards, analytics: SELECT only.
CREATE ROLE readonly_user LOGIN PASSWORD :'verifier_readonly_user';
-- Limited reading and writing. "Used in dev environment only": roles are defined once and granted per
-- environment, so that it exists everywhere, and may log in where the database is that of development.
CREATE ROLE dev_user LOGIN PASSWORD :'verifier_dev_user';
SELECT CASE :'environment' WHEN 'dev' THEN 'LOGIN' ELSE 'NOLOGIN' END AS dev \gset
ALTER ROLE dev_user :dev;

GRANT CREATE ON DATABASE :"database" TO admin_user;
