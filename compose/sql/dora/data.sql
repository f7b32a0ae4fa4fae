-- Data of the DORA schema: deterministic by :seed, sized by :scale.
--
--   scale 1:  40 organisations · 400 users · 800 policies · 8,000 assessments · 480 reports · 2,400 findings ·
--             20,000 references to the audit trail of 2025

SET search_path = dora, pg_catalog;
SET synchronous_commit = off;

-- A number in [0, 1) for a row and a column, from a hash: neither the plan nor the order of execution changes it.
CREATE FUNCTION pg_temp.u(i bigint, col int) RETURNS double precision IMMUTABLE PARALLEL SAFE LANGUAGE sql AS
$$ SELECT (hashint8extended(i, current_setting('lab.seed')::bigint * 1000 + col) & 9007199254740991)
          / 9007199254740992.0::double precision $$;
SELECT set_config('lab.seed', :'seed', false) AS seed \gset

INSERT INTO organization
SELECT i, 'Organisation ' || i,
       (ARRAY['bank', 'bank', 'insurer', 'investment firm', 'payment institution', 'ict provider'])[1 + floor(6 * pg_temp.u(i, 1))::int],
       (ARRAY['DE', 'FR', 'NL', 'IE', 'LU', 'ES'])[1 + floor(6 * pg_temp.u(i, 2))::int],
       jsonb_build_object('employees', 10 + floor(5000 * pow(pg_temp.u(i, 3), 3))::int, 'critical', pg_temp.u(i, 4) < 0.3)
FROM generate_series(1, 40 * :scale) AS i;

INSERT INTO app_user
SELECT i, 1 + (i - 1) % (40 * :scale), 'user' || i || '@example.org',
       (ARRAY['viewer', 'viewer', 'analyst', 'manager', 'auditor'])[1 + floor(5 * pg_temp.u(i, 10))::int],
       '2025-12-31'::timestamptz - pg_temp.u(i, 11) * interval '30 days'
FROM generate_series(1, 400 * :scale) AS i;

INSERT INTO policy
SELECT i, 1 + (i - 1) % (40 * :scale), 'Policy ' || i,
       (ARRAY['risk management', 'incidents', 'resilience testing', 'third parties', 'information sharing'])[1 + i % 5],
       (ARRAY['public', 'internal', 'internal', 'confidential', 'restricted'])[1 + floor(5 * pg_temp.u(i, 20))::int],
       1 + floor(9 * pg_temp.u(i, 21))::int, '2025-12-31'::timestamptz - pg_temp.u(i, 22) * interval '700 days'
FROM generate_series(1, 800 * :scale) AS i;

INSERT INTO assessment (policy_id, assessed_by, assessed_at, score, status)
SELECT 1 + floor(800 * :scale * pg_temp.u(i, 30))::int, 1 + floor(400 * :scale * pg_temp.u(i, 31))::int,
       '2025-01-01'::timestamptz + i * (interval '365 days' / (8000 * :scale)), round((100 * pg_temp.u(i, 32))::numeric, 2),
       (ARRAY['open', 'accepted', 'accepted', 'rejected'])[1 + floor(4 * pg_temp.u(i, 33))::int]
FROM generate_series(1, 8000 * :scale) AS i;

INSERT INTO compliance_report
SELECT (o - 1) * 12 + m, o, make_date(2025, m, 1), round((40 + 60 * pg_temp.u(o * 100 + m, 40))::numeric, 2),
       jsonb_build_object('open', floor(20 * pg_temp.u(o * 100 + m, 41))::int, 'trend', round((pg_temp.u(o * 100 + m, 42) - 0.5)::numeric, 3))
FROM generate_series(1, 40 * :scale) AS o, generate_series(1, 12) AS m;

INSERT INTO finding
SELECT i, 1 + (i - 1) % (480 * :scale), 1 + floor(800 * :scale * pg_temp.u(i, 50))::int,
       (ARRAY['low', 'low', 'medium', 'medium', 'high', 'critical'])[1 + floor(6 * pg_temp.u(i, 51))::int], pg_temp.u(i, 52) < 0.7
FROM generate_series(1, 2400 * :scale) AS i;

INSERT INTO audit_reference (happened_at, user_id, action, subject)
SELECT '2025-01-01'::timestamptz + i * (interval '365 days' / (20000 * :scale)), 1 + floor(400 * :scale * pg_temp.u(i, 60))::int,
       (ARRAY['read', 'read', 'read', 'change', 'login', 'export'])[1 + floor(6 * pg_temp.u(i, 61))::int],
       'policy/' || 1 + floor(800 * :scale * pg_temp.u(i, 62))::int
FROM generate_series(1, 20000 * :scale) AS i;

INSERT INTO system_setting VALUES
    ('retention.audit', '"7 years"'), ('retention.reports', '"5 years"'), ('retention.metrics', '"90 days"'),
    ('retention.sessions', '"24 hours"');

VACUUM (ANALYZE);
