-- Experiments, their variants, who was assigned to which, and what they did.
--
--   experiment ──< variant ──< assignment (subject);  experiment ──< metric_event

CREATE SCHEMA experimentation AUTHORIZATION app_admin;
ALTER DATABASE :"database" SET search_path = experimentation, public;
SET ROLE app_admin;
SET search_path = experimentation;

CREATE TABLE experiment (
    experiment_id int PRIMARY KEY,
    key           text NOT NULL UNIQUE,
    status        text NOT NULL CHECK (status IN ('draft', 'running', 'stopped')),
    started_at    timestamptz
);

CREATE TABLE variant (
    variant_id    int PRIMARY KEY,
    experiment_id int NOT NULL REFERENCES experiment,
    key           text NOT NULL,
    weight        numeric(4, 3) NOT NULL CHECK (weight BETWEEN 0 AND 1),
    UNIQUE (experiment_id, key)
);

CREATE TABLE assignment (
    experiment_id int NOT NULL REFERENCES experiment,
    subject       text NOT NULL,
    variant_id    int NOT NULL REFERENCES variant,
    assigned_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (experiment_id, subject)
);
CREATE INDEX assignment_variant ON assignment (variant_id);

CREATE TABLE metric_event (
    event_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    experiment_id int NOT NULL REFERENCES experiment,
    subject       text NOT NULL,
    name          text NOT NULL,
    value         double precision NOT NULL,
    happened_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX metric_event_experiment ON metric_event (experiment_id, name, happened_at DESC);

GRANT USAGE ON SCHEMA experimentation TO app_readwrite, app_readonly;
GRANT SELECT ON ALL TABLES IN SCHEMA experimentation TO app_readonly;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA experimentation TO app_readwrite;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA experimentation TO app_readwrite;
ALTER DEFAULT PRIVILEGES IN SCHEMA experimentation GRANT SELECT ON TABLES TO app_readonly;
ALTER DEFAULT PRIVILEGES IN SCHEMA experimentation GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO app_readwrite;
ALTER DEFAULT PRIVILEGES IN SCHEMA experimentation GRANT USAGE ON SEQUENCES TO app_readwrite;
RESET ROLE;
