-- Data of the clinical schema: deterministic by :seed, sized by :scale. No person is described: all of it is made.
--
--   scale 1:  6 studies · 60 sites · 2,000 participants · 12,000 visits with 60,000 observations · 800 adverse events

SET search_path = clinical, pg_catalog;
SET synchronous_commit = off;

-- A number in [0, 1) for a row and a column, from a hash: neither the plan nor the order of execution changes it.
CREATE FUNCTION pg_temp.u(i bigint, col int) RETURNS double precision IMMUTABLE PARALLEL SAFE LANGUAGE sql AS
$$ SELECT (hashint8extended(i, current_setting('lab.seed')::bigint * 1000 + col) & 9007199254740991)
          / 9007199254740992.0::double precision $$;
SELECT set_config('lab.seed', :'seed', false) AS seed \gset

INSERT INTO study
SELECT i, 'CT-' || 1000 + i, 'Study ' || i, 1 + i % 4, (ARRAY['recruiting', 'active', 'active', 'closed'])[1 + i % 4]
FROM generate_series(1, 6) AS i;

INSERT INTO site
SELECT i, 1 + (i - 1) % 6, 'Site ' || i, (ARRAY['US', 'DE', 'FR', 'GB', 'JP', 'BR'])[1 + floor(6 * pg_temp.u(i, 1))::int]
FROM generate_series(1, 60) AS i;

INSERT INTO participant
SELECT i, 1 + (i - 1) % 60, upper(substr(md5(i::text || :'seed'), 1, 8)) || '-' || i,
       CASE WHEN pg_temp.u(i, 10) < 0.5 THEN 'treatment' ELSE 'placebo' END, 1930 + floor(75 * pg_temp.u(i, 11))::int,
       '2025-01-01'::timestamptz + pg_temp.u(i, 12) * interval '180 days',
       CASE WHEN pg_temp.u(i, 13) < 0.05 THEN '2025-12-01'::timestamptz END
FROM generate_series(1, 2000 * :scale) AS i;

INSERT INTO consent SELECT participant_id, 1, enrolled_at FROM participant;

INSERT INTO visit (visit_id, participant_id, number, visited_at, completed)
SELECT (p - 1) * 6::bigint + n, p, n, '2025-02-01'::timestamptz + n * interval '30 days' + pg_temp.u(p * 10::bigint + n, 20) * interval '5 days', true
FROM generate_series(1, 2000 * :scale) AS p, generate_series(1, 6) AS n;
SELECT setval('visit_id_seq', 12000 * :scale::bigint) AS last \gset

INSERT INTO observation
SELECT visit_id, measure, round((low + spread * pg_temp.u(visit_id, col))::numeric, 2)
FROM visit, (VALUES ('systolic', 100, 50, 30), ('diastolic', 60, 35, 31), ('pulse', 50, 50, 32), ('weight', 45, 70, 33),
                    ('temperature', 36, 2, 34)) AS m (measure, low, spread, col);

INSERT INTO adverse_event (participant_id, reported_at, severity, term, resolved)
SELECT 1 + floor(2000 * :scale * pg_temp.u(i, 40))::int, '2025-07-01'::timestamptz + pg_temp.u(i, 41) * interval '180 days',
       (ARRAY['mild', 'mild', 'mild', 'moderate', 'moderate', 'severe'])[1 + floor(6 * pg_temp.u(i, 42))::int],
       (ARRAY['headache', 'nausea', 'fatigue', 'rash', 'dizziness'])[1 + floor(5 * pg_temp.u(i, 43))::int], pg_temp.u(i, 44) < 0.8
FROM generate_series(1, 800 * :scale) AS i;

VACUUM (ANALYZE);
