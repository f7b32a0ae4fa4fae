-- Structured compliance data: organisations, users, policies, reports' summaries, references to the audit trail.
--
--   organization ──< app_user;  organization ──< policy ──< assessment
--   organization ──< compliance_report ──< finding >── policy
--   audit_reference (by quarter): who did what to which row; system_setting: configuration

CREATE SCHEMA dora AUTHORIZATION app_admin;
ALTER DATABASE :"database" SET search_path = dora, public;
SET ROLE app_admin;
SET search_path = dora;

CREATE TABLE organization (
    organization_id int PRIMARY KEY,
    name            text NOT NULL UNIQUE,
    kind            text NOT NULL CHECK (kind IN ('bank', 'insurer', 'investment firm', 'payment institution', 'ict provider')),
    country         char(2) NOT NULL,
    profile         jsonb NOT NULL DEFAULT '{}'
);

CREATE TABLE app_user (
    user_id         int PRIMARY KEY,
    organization_id int NOT NULL REFERENCES organization,
    email           text NOT NULL UNIQUE CHECK (email LIKE '%@%'),
    role            text NOT NULL CHECK (role IN ('viewer', 'analyst', 'manager', 'auditor')),
    last_login      timestamptz
);
CREATE INDEX app_user_organization ON app_user (organization_id);

CREATE TABLE policy (
    policy_id       int PRIMARY KEY,
    organization_id int NOT NULL REFERENCES organization,
    title           text NOT NULL,
    pillar          text NOT NULL CHECK (pillar IN ('risk management', 'incidents', 'resilience testing', 'third parties', 'information sharing')),
    classification  text NOT NULL CHECK (classification IN ('public', 'internal', 'confidential', 'restricted')),
    version         int NOT NULL DEFAULT 1 CHECK (version > 0),
    updated_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX policy_organization ON policy (organization_id, pillar);

CREATE SEQUENCE assessment_id_seq AS bigint CACHE 50;
CREATE TABLE assessment (
    assessment_id bigint PRIMARY KEY DEFAULT nextval('assessment_id_seq'),
    policy_id     int NOT NULL REFERENCES policy,
    assessed_by   int NOT NULL REFERENCES app_user (user_id),
    assessed_at   timestamptz NOT NULL DEFAULT now(),
    score         numeric(5, 2) NOT NULL CHECK (score BETWEEN 0 AND 100),
    status        text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'accepted', 'rejected'))
);
ALTER SEQUENCE assessment_id_seq OWNED BY assessment.assessment_id;
CREATE INDEX assessment_policy ON assessment (policy_id, assessed_at DESC);

CREATE TABLE compliance_report (
    report_id       int PRIMARY KEY,
    organization_id int NOT NULL REFERENCES organization,
    period          date NOT NULL,
    score           numeric(5, 2) NOT NULL CHECK (score BETWEEN 0 AND 100),
    summary         jsonb NOT NULL,
    UNIQUE (organization_id, period)
);

CREATE TABLE finding (
    finding_id int PRIMARY KEY,
    report_id  int NOT NULL REFERENCES compliance_report,
    policy_id  int NOT NULL REFERENCES policy,
    severity   text NOT NULL CHECK (severity IN ('low', 'medium', 'high', 'critical')),
    resolved   boolean NOT NULL DEFAULT false
);
CREATE INDEX finding_report ON finding (report_id);
CREATE INDEX finding_open ON finding (policy_id) WHERE NOT resolved;

CREATE TABLE audit_reference (
    audit_id    bigint GENERATED ALWAYS AS IDENTITY,
    happened_at timestamptz NOT NULL DEFAULT now(),
    user_id     int REFERENCES app_user,
    action      text NOT NULL,
    subject     text NOT NULL,
    PRIMARY KEY (audit_id, happened_at)
) PARTITION BY RANGE (happened_at);
CREATE INDEX audit_reference_user ON audit_reference (user_id, happened_at DESC);
CREATE TABLE audit_reference_2025h1 PARTITION OF audit_reference FOR VALUES FROM ('2025-01-01') TO ('2025-07-01');
CREATE TABLE audit_reference_2025h2 PARTITION OF audit_reference FOR VALUES FROM ('2025-07-01') TO ('2026-01-01');
CREATE TABLE audit_reference_other PARTITION OF audit_reference DEFAULT;

CREATE TABLE system_setting (
    key        text PRIMARY KEY,
    value      jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);

GRANT USAGE ON SCHEMA dora TO app_readwrite, app_readonly;
GRANT SELECT ON ALL TABLES IN SCHEMA dora TO app_readonly;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA dora TO app_readwrite;
-- An audit trail is added to, and never changed.
REVOKE UPDATE, DELETE ON audit_reference FROM app_readwrite;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA dora TO app_readwrite;
ALTER DEFAULT PRIVILEGES IN SCHEMA dora GRANT SELECT ON TABLES TO app_readonly;
ALTER DEFAULT PRIVILEGES IN SCHEMA dora GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO app_readwrite;
ALTER DEFAULT PRIVILEGES IN SCHEMA dora GRANT USAGE ON SEQUENCES TO app_readwrite;
RESET ROLE;
