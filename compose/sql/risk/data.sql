-- Data of the risk schema: deterministic by :seed, sized by :scale.
--
--   scale 1:  200 counterparties · 500 instruments · 50 portfolios · 5,000 positions · 15,000 prices ·
--             50,000 trades over 2025 · 258 limits.  Portfolios, positions, prices and trades grow with the scale.
--
-- Every value comes from a hash of (row, column, seed), so that neither the planner nor the order of execution
-- changes it. Foreign keys are not checked row by row here (five look-ups a trade); the end of the file proves
-- them set by set.

SET search_path = risk, pg_catalog;
SET session_replication_role = replica;
SET synchronous_commit = off;
SET maintenance_work_mem = '128MB';

-- A number in [0, 1) for a row and a column.
CREATE FUNCTION pg_temp.u(i bigint, col int) RETURNS double precision IMMUTABLE PARALLEL SAFE LANGUAGE sql AS
$$ SELECT (hashint8extended(i, current_setting('lab.seed')::bigint * 1000 + col) & 9007199254740991)
          / 9007199254740992.0::double precision $$;
SELECT set_config('lab.seed', :'seed', false) AS seed \gset
\set instruments 500
\set counterparties 200

INSERT INTO currency VALUES
    ('EUR', 'Euro', 2), ('USD', 'US dollar', 2), ('GBP', 'Pound sterling', 2), ('JPY', 'Yen', 0), ('CHF', 'Swiss franc', 2);

INSERT INTO desk VALUES
    (1, 'Equities EMEA', 'EMEA'), (2, 'Rates EMEA', 'EMEA'), (3, 'Credit AMER', 'AMER'), (4, 'Equities AMER', 'AMER'),
    (5, 'FX APAC', 'APAC'), (6, 'Commodities AMER', 'AMER'), (7, 'Rates APAC', 'APAC'), (8, 'Treasury', 'EMEA');

INSERT INTO counterparty
SELECT i, upper(rpad(substr(md5(i::text || :'seed'), 1, 18), 18, '0')) || lpad((i % 97)::text, 2, '0'),
       'Counterparty ' || i,
       (ARRAY['DE', 'FR', 'GB', 'US', 'JP', 'CH', 'NL', 'SG'])[1 + floor(8 * pg_temp.u(i, 1))::int],
       (ARRAY['AAA', 'AA', 'A', 'A', 'BBB', 'BBB', 'BBB', 'BB', 'B', 'CCC'])[1 + floor(10 * pg_temp.u(i, 2))::int],
       pg_temp.u(i, 3) < 0.97
FROM generate_series(1, :counterparties) AS i;

INSERT INTO instrument
SELECT i, (ARRAY['DE', 'FR', 'GB', 'US', 'JP'])[1 + floor(5 * pg_temp.u(i, 10))::int] || lpad(i::text, 9, '0') || i % 10,
       'Instrument ' || i,
       (ARRAY['equity', 'equity', 'equity', 'bond', 'bond', 'fx', 'rate', 'credit', 'commodity'])
           [1 + floor(9 * pg_temp.u(i, 11))::int],
       (ARRAY['EUR', 'USD', 'GBP', 'JPY', 'CHF'])[1 + floor(5 * pg_temp.u(i, 12))::int],
       0.01
FROM generate_series(1, :instruments) AS i;

-- A geometric walk is not needed: a smooth wave around a level looks like prices and needs no order.
INSERT INTO price
SELECT i, '2025-12-31'::date - d,
       round(((5 + 195 * pg_temp.u(i, 20)) * (1 + 0.1 * sin(d / 9.0 + i) + 0.02 * pg_temp.u(i * 100000 + d, 21)))::numeric, 4),
       0.05 + 0.4 * pg_temp.u(i, 22)
FROM generate_series(1, :instruments) AS i, generate_series(0, least(30 * :scale, 3650) - 1) AS d;

INSERT INTO portfolio
SELECT i, 1 + (i - 1) % 8, 'Portfolio ' || i,
       (ARRAY['EUR', 'USD', 'GBP'])[1 + floor(3 * pg_temp.u(i, 30))::int]
FROM generate_series(1, 50 * :scale) AS i;

-- A hundred different instruments each: a stride that shares no factor with 500 visits no one twice.
INSERT INTO position
SELECT p, 1 + (floor(:instruments * pg_temp.u(p, 40))::int + k * 7) % :instruments,
       round((20000 * (pg_temp.u(p * 1000::bigint + k, 41) - 0.3))::numeric, 0),
       round((5 + 195 * pg_temp.u(p * 1000::bigint + k, 42))::numeric, 4),
       '2025-12-31 18:00+00'
FROM generate_series(1, 50 * :scale) AS p, generate_series(0, 99) AS k;

INSERT INTO trade
SELECT i, '2025-01-01 00:00+00'::timestamptz + (i - 1) * (interval '365 days' / (50000.0 * :scale)),
       1 + floor(50 * :scale * pg_temp.u(i, 50))::int,
       1 + floor(:instruments * pow(pg_temp.u(i, 51), 2))::int,
       1 + floor(:counterparties * pg_temp.u(i, 52))::int,
       CASE WHEN pg_temp.u(i, 53) < 0.55 THEN 'B' ELSE 'S' END,
       1 + floor(1000 * pg_temp.u(i, 54)),
       round((5 + 195 * pg_temp.u(i, 55))::numeric, 4),
       CASE WHEN i > 49000 * :scale THEN 'confirmed' WHEN pg_temp.u(i, 56) < 0.02 THEN 'cancelled' ELSE 'settled' END
FROM generate_series(1, 50000 * :scale::bigint) AS i;
SELECT setval('trade_id_seq', 50000 * :scale::bigint) AS last \gset

INSERT INTO risk_limit (limit_id, kind, portfolio_id, desk_id, counterparty_id, currency, amount, used, updated_at)
SELECT row_number() OVER (ORDER BY what, id), kind, CASE what WHEN 1 THEN id END, CASE what WHEN 2 THEN id END,
       CASE what WHEN 3 THEN id END, 'EUR', amount, round(amount * (pg_temp.u(what * 1000000 + id, 60) * 0.95)::numeric, 2),
       '2025-12-31 18:00+00'
FROM (
    SELECT 1 AS what, i AS id, 'exposure' AS kind, 50000000.00 AS amount FROM generate_series(1, 50 * :scale) AS i
    UNION ALL SELECT 2, i, 'var', 20000000.00 FROM generate_series(1, 8) AS i
    UNION ALL SELECT 3, i, 'exposure', 100000000.00 FROM generate_series(1, :counterparties) AS i
) AS limits;

RESET session_replication_role;

-- Every foreign key of the schema, from the catalogue: no row may point nowhere.
DO $$
DECLARE
    fk record;
    orphans bigint;
BEGIN
    FOR fk IN
        SELECT c.conrelid::regclass AS child, c.confrelid::regclass AS parent, a.attname AS col, f.attname AS key
        FROM pg_constraint c
        JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
        JOIN pg_attribute f ON f.attrelid = c.confrelid AND f.attnum = c.confkey[1]
        WHERE c.contype = 'f' AND c.conparentid = 0 AND c.connamespace = 'risk'::regnamespace
    LOOP
        EXECUTE format('SELECT count(*) FROM %s c WHERE c.%I IS NOT NULL AND NOT EXISTS '
                       '(SELECT FROM %s p WHERE p.%I = c.%I)', fk.child, fk.col, fk.parent, fk.key, fk.col) INTO orphans;
        IF orphans > 0 THEN
            RAISE EXCEPTION '% rows of %.% point to no row of %', orphans, fk.child, fk.col, fk.parent;
        END IF;
    END LOOP;
END $$;

VACUUM (ANALYZE);
