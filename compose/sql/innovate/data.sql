-- Data of the innovate schema: deterministic by :seed, sized by :scale. No person is described: all of it is made.
--
--   scale 1:  2,000 customers · 3,000 KYC documents · 2,000 tokens · 3,000 accounts · 30,000 payments

SET search_path = innovate, pg_catalog;
SET synchronous_commit = off;

-- A number in [0, 1) for a row and a column, from a hash: neither the plan nor the order of execution changes it.
CREATE FUNCTION pg_temp.u(i bigint, col int) RETURNS double precision IMMUTABLE PARALLEL SAFE LANGUAGE sql AS
$$ SELECT (hashint8extended(i, current_setting('lab.seed')::bigint * 1000 + col) & 9007199254740991)
          / 9007199254740992.0::double precision $$;
SELECT set_config('lab.seed', :'seed', false) AS seed \gset

INSERT INTO customer
SELECT i, (ARRAY['Ada', 'Ben', 'Cleo', 'Dov', 'Eva', 'Finn', 'Gia', 'Hal'])[1 + floor(8 * pg_temp.u(i, 1))::int] || ' ' ||
          (ARRAY['Archer', 'Brook', 'Clay', 'Dale', 'Ellis', 'Ford', 'Grove'])[1 + floor(7 * pg_temp.u(i, 2))::int] || ' ' || i,
       'customer' || i || '@example.org', (ARRAY['DE', 'FR', 'US', 'GB', 'IN'])[1 + floor(5 * pg_temp.u(i, 3))::int],
       '2025-01-01'::timestamptz + pg_temp.u(i, 4) * interval '300 days'
FROM generate_series(1, 2000 * :scale) AS i;

INSERT INTO kyc_document
SELECT i, 1 + (i - 1) % (2000 * :scale), (ARRAY['passport', 'id card', 'utility bill'])[1 + floor(3 * pg_temp.u(i, 10))::int],
       upper(substr(md5('kyc' || i || :'seed'), 1, 10)), 'scan of document ' || md5('body' || i || :'seed'),
       '2025-11-01'::timestamptz - pg_temp.u(i, 11) * interval '200 days'
FROM generate_series(1, 3000 * :scale) AS i;

INSERT INTO api_token
SELECT i, i, 'tok_' || md5('token' || i || :'seed'), '2026-06-01'::timestamptz + pg_temp.u(i, 20) * interval '300 days'
FROM generate_series(1, 2000 * :scale) AS i;

INSERT INTO account
SELECT i, 1 + (i - 1) % (2000 * :scale), (ARRAY['EUR', 'USD', 'GBP'])[1 + floor(3 * pg_temp.u(i, 30))::int],
       round((10000 * pg_temp.u(i, 31))::numeric, 2)
FROM generate_series(1, 3000 * :scale) AS i;

INSERT INTO payment (account_id, amount, reference, paid_at)
SELECT 1 + floor(3000 * :scale * pg_temp.u(i, 40))::int, round((1 + 500 * pg_temp.u(i, 41))::numeric, 2), 'order ' || i,
       '2025-01-01'::timestamptz + i * (interval '365 days' / (30000 * :scale))
FROM generate_series(1, 30000 * :scale) AS i;

VACUUM (ANALYZE);
