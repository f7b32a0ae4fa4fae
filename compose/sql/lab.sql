-- What the lab itself keeps in the database: the ledger of the writer probe, and its two roles.
-- Runs after the roles, schema and data of the document.

CREATE EXTENSION IF NOT EXISTS pg_stat_statements;

CREATE ROLE lab_probe LOGIN PASSWORD :'verifier_lab_probe';
CREATE ROLE lab_monitor LOGIN PASSWORD :'verifier_lab_monitor' IN ROLE pg_monitor;

CREATE SCHEMA lab AUTHORIZATION lab_probe;
SET ROLE lab_probe;

-- No unique key, so that a write that was applied twice can show.
CREATE TABLE lab.ledger (
    run     text        NOT NULL,
    trial   int         NOT NULL,
    n       bigint      NOT NULL,
    session bigint      NOT NULL,
    written timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ledger_run_n ON lab.ledger (run, n);

GRANT USAGE ON SCHEMA lab TO lab_monitor;
GRANT SELECT ON lab.ledger TO lab_monitor;
RESET ROLE;
