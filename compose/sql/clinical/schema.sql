-- Clinical trials: who is in which study, at which site, what was measured at each visit, and what went wrong.
--
--   study ──< site ──< participant ──< visit ──< observation
--   participant ──< adverse_event;  participant ──< consent

CREATE SCHEMA clinical AUTHORIZATION app_admin;
ALTER DATABASE :"database" SET search_path = clinical, public;
SET ROLE app_admin;
SET search_path = clinical;

CREATE TABLE study (
    study_id int PRIMARY KEY,
    protocol text NOT NULL UNIQUE,
    title    text NOT NULL,
    phase    smallint NOT NULL CHECK (phase BETWEEN 1 AND 4),
    status   text NOT NULL CHECK (status IN ('planned', 'recruiting', 'active', 'closed'))
);

CREATE TABLE site (
    site_id  int PRIMARY KEY,
    study_id int NOT NULL REFERENCES study,
    name     text NOT NULL,
    country  char(2) NOT NULL
);
CREATE INDEX site_study ON site (study_id);

CREATE TABLE participant (
    participant_id int PRIMARY KEY,
    site_id        int NOT NULL REFERENCES site,
    pseudonym      text NOT NULL UNIQUE,
    arm            text NOT NULL CHECK (arm IN ('treatment', 'placebo')),
    birth_year     smallint NOT NULL CHECK (birth_year BETWEEN 1920 AND 2010),
    enrolled_at    timestamptz NOT NULL DEFAULT now(),
    withdrawn_at   timestamptz CHECK (withdrawn_at >= enrolled_at)
);
CREATE INDEX participant_site ON participant (site_id);

CREATE TABLE consent (
    participant_id int NOT NULL REFERENCES participant,
    version        smallint NOT NULL,
    given_at       timestamptz NOT NULL,
    PRIMARY KEY (participant_id, version)
);

CREATE SEQUENCE visit_id_seq AS bigint CACHE 50;
CREATE TABLE visit (
    visit_id       bigint PRIMARY KEY DEFAULT nextval('visit_id_seq'),
    participant_id int NOT NULL REFERENCES participant,
    number         smallint NOT NULL CHECK (number > 0),
    visited_at     timestamptz NOT NULL DEFAULT now(),
    completed      boolean NOT NULL DEFAULT false,
    UNIQUE (participant_id, number)
);
ALTER SEQUENCE visit_id_seq OWNED BY visit.visit_id;

CREATE TABLE observation (
    visit_id bigint NOT NULL REFERENCES visit,
    measure  text NOT NULL CHECK (measure IN ('systolic', 'diastolic', 'pulse', 'weight', 'temperature')),
    value    numeric(8, 2) NOT NULL,
    PRIMARY KEY (visit_id, measure)
);

CREATE TABLE adverse_event (
    event_id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    participant_id int NOT NULL REFERENCES participant,
    reported_at    timestamptz NOT NULL DEFAULT now(),
    severity       text NOT NULL CHECK (severity IN ('mild', 'moderate', 'severe')),
    term           text NOT NULL,
    resolved       boolean NOT NULL DEFAULT false
);
CREATE INDEX adverse_event_participant ON adverse_event (participant_id, reported_at DESC);

GRANT USAGE ON SCHEMA clinical TO app_readwrite, app_readonly;
GRANT SELECT ON ALL TABLES IN SCHEMA clinical TO app_readonly;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA clinical TO app_readwrite;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA clinical TO app_readwrite;
ALTER DEFAULT PRIVILEGES IN SCHEMA clinical GRANT SELECT ON TABLES TO app_readonly;
ALTER DEFAULT PRIVILEGES IN SCHEMA clinical GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO app_readwrite;
ALTER DEFAULT PRIVILEGES IN SCHEMA clinical GRANT USAGE ON SEQUENCES TO app_readwrite;
RESET ROLE;
