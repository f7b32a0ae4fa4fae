-- Data of the experimentation schema: deterministic by :seed, sized by :scale.
--
--   scale 1:  20 experiments · 40 variants · 20,000 assignments · 40,000 events

SET search_path = experimentation, pg_catalog;
SET synchronous_commit = off;

-- A number in [0, 1) for a row and a column, from a hash: neither the plan nor the order of execution changes it.
CREATE FUNCTION pg_temp.u(i bigint, col int) RETURNS double precision IMMUTABLE PARALLEL SAFE LANGUAGE sql AS
$$ SELECT (hashint8extended(i, current_setting('lab.seed')::bigint * 1000 + col) & 9007199254740991)
          / 9007199254740992.0::double precision $$;
SELECT set_config('lab.seed', :'seed', false) AS seed \gset

INSERT INTO experiment
SELECT i, 'experiment-' || i, (ARRAY['running', 'running', 'stopped', 'draft'])[1 + i % 4],
       '2025-06-01'::timestamptz + pg_temp.u(i, 1) * interval '120 days'
FROM generate_series(1, 20) AS i;

INSERT INTO variant
SELECT (i - 1) * 2 + v, i, (ARRAY['control', 'treatment'])[v], 0.5 FROM generate_series(1, 20) AS i, generate_series(1, 2) AS v;

INSERT INTO assignment
SELECT e, 'subject-' || s, (e - 1) * 2 + 1 + (pg_temp.u(e * 1000000::bigint + s, 10) < 0.5)::int,
       '2025-10-01'::timestamptz + pg_temp.u(e * 1000000::bigint + s, 11) * interval '60 days'
FROM generate_series(1, 20) AS e, generate_series(1, 1000 * :scale) AS s;

INSERT INTO metric_event (experiment_id, subject, name, value, happened_at)
SELECT 1 + floor(20 * pg_temp.u(i, 20))::int, 'subject-' || 1 + floor(1000 * :scale * pg_temp.u(i, 21))::int,
       (ARRAY['view', 'view', 'click', 'purchase'])[1 + floor(4 * pg_temp.u(i, 22))::int], round((100 * pg_temp.u(i, 23))::numeric, 2),
       '2025-10-01'::timestamptz + i * (interval '60 days' / (40000 * :scale))
FROM generate_series(1, 40000 * :scale) AS i;

VACUUM (ANALYZE);
