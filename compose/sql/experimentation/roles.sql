-- Roles of the Experimentation Platform. The document names none: the function's credentials are a secret.
-- Passwords arrive as SCRAM secrets, made outside the database.

-- Owns the schema: the function can create it.
CREATE ROLE app_admin LOGIN PASSWORD :'verifier_app_admin';
-- The functions.
CREATE ROLE app_readwrite LOGIN PASSWORD :'verifier_app_readwrite';
-- Analysis of experiments.
CREATE ROLE app_readonly LOGIN PASSWORD :'verifier_app_readonly';

GRANT CREATE ON DATABASE :"database" TO app_admin;
