-- The risk schema: who trades what, where it is held, and how much of it is allowed.
--
--   currency ──< instrument ──< price (a day)
--   desk ──< portfolio ──< position >── instrument
--   counterparty ──< trade (by month) >── portfolio, instrument
--   risk_limit: of a portfolio, a desk or a counterparty;  limit_breach: when it was exceeded

CREATE SCHEMA risk AUTHORIZATION app_admin;
ALTER DATABASE :"database" SET search_path = risk, public;
SET ROLE app_admin;
SET search_path = risk;

CREATE TABLE currency (
    code     char(3) PRIMARY KEY CHECK (code ~ '^[A-Z]{3}$'),
    name     text NOT NULL,
    decimals smallint NOT NULL CHECK (decimals BETWEEN 0 AND 4)
);

CREATE TABLE desk (
    desk_id smallint PRIMARY KEY,
    name    text NOT NULL UNIQUE,
    region  text NOT NULL CHECK (region IN ('EMEA', 'AMER', 'APAC'))
);

CREATE TABLE counterparty (
    counterparty_id int PRIMARY KEY,
    lei             char(20) NOT NULL UNIQUE CHECK (lei ~ '^[A-Z0-9]{20}$'),
    name            text NOT NULL,
    country         char(2) NOT NULL,
    rating          text NOT NULL CHECK (rating IN ('AAA', 'AA', 'A', 'BBB', 'BB', 'B', 'CCC')),
    active          boolean NOT NULL DEFAULT true
);

CREATE TABLE instrument (
    instrument_id int PRIMARY KEY,
    isin          char(12) NOT NULL UNIQUE CHECK (isin ~ '^[A-Z]{2}[A-Z0-9]{9}[0-9]$'),
    name          text NOT NULL,
    asset_class   text NOT NULL CHECK (asset_class IN ('equity', 'bond', 'fx', 'rate', 'credit', 'commodity')),
    currency      char(3) NOT NULL REFERENCES currency,
    tick          numeric(12, 6) NOT NULL CHECK (tick > 0)
);
CREATE INDEX instrument_class ON instrument (asset_class);

CREATE TABLE price (
    instrument_id int NOT NULL REFERENCES instrument,
    day           date NOT NULL,
    close         numeric(18, 6) NOT NULL CHECK (close > 0),
    volatility    double precision NOT NULL CHECK (volatility >= 0),
    PRIMARY KEY (instrument_id, day)
);

CREATE TABLE portfolio (
    portfolio_id  int PRIMARY KEY,
    desk_id       smallint NOT NULL REFERENCES desk,
    name          text NOT NULL UNIQUE,
    base_currency char(3) NOT NULL REFERENCES currency
);
CREATE INDEX portfolio_desk ON portfolio (desk_id);

CREATE TABLE position (
    portfolio_id  int NOT NULL REFERENCES portfolio,
    instrument_id int NOT NULL REFERENCES instrument,
    quantity      numeric(20, 4) NOT NULL,
    average_price numeric(18, 6) NOT NULL CHECK (average_price >= 0),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (portfolio_id, instrument_id)
);
CREATE INDEX position_instrument ON position (instrument_id);

CREATE SEQUENCE trade_id_seq AS bigint CACHE 50;
CREATE TABLE trade (
    trade_id        bigint NOT NULL DEFAULT nextval('trade_id_seq'),
    traded_at       timestamptz NOT NULL DEFAULT now(),
    portfolio_id    int NOT NULL REFERENCES portfolio,
    instrument_id   int NOT NULL REFERENCES instrument,
    counterparty_id int NOT NULL REFERENCES counterparty,
    side            char(1) NOT NULL CHECK (side IN ('B', 'S')),
    quantity        numeric(20, 4) NOT NULL CHECK (quantity > 0),
    price           numeric(18, 6) NOT NULL CHECK (price > 0),
    status          text NOT NULL DEFAULT 'new' CHECK (status IN ('new', 'confirmed', 'settled', 'cancelled')),
    PRIMARY KEY (trade_id, traded_at)
) PARTITION BY RANGE (traded_at);
ALTER SEQUENCE trade_id_seq OWNED BY trade.trade_id;
CREATE INDEX trade_portfolio ON trade (portfolio_id, traded_at DESC);
CREATE INDEX trade_counterparty ON trade (counterparty_id, traded_at DESC);
CREATE INDEX trade_open ON trade (traded_at) WHERE status IN ('new', 'confirmed');

-- Months of the history that data.sql generates (2025), and those around today for the trades that a lab adds;
-- anything else lands in the default partition.
DO $$
DECLARE
    month date;
BEGIN
    FOR month IN SELECT generate_series('2025-01-01'::date, '2025-12-01'::date, '1 month')::date LOOP
        EXECUTE format('CREATE TABLE %I PARTITION OF trade FOR VALUES FROM (%L) TO (%L)',
            'trade_' || to_char(month, 'YYYYMM'), month, (month + interval '1 month')::date);
    END LOOP;
    FOR month IN SELECT generate_series(
            date_trunc('month', greatest(now(), '2026-01-01') - interval '1 month')::date,
            (date_trunc('month', now()) + interval '2 months')::date, '1 month')::date LOOP
        EXECUTE format('CREATE TABLE IF NOT EXISTS %I PARTITION OF trade FOR VALUES FROM (%L) TO (%L)',
            'trade_' || to_char(month, 'YYYYMM'), month, (month + interval '1 month')::date);
    END LOOP;
END $$;
CREATE TABLE trade_other PARTITION OF trade DEFAULT;

CREATE TABLE risk_limit (
    limit_id        int PRIMARY KEY,
    kind            text NOT NULL CHECK (kind IN ('exposure', 'var', 'loss')),
    portfolio_id    int REFERENCES portfolio,
    desk_id         smallint REFERENCES desk,
    counterparty_id int REFERENCES counterparty,
    currency        char(3) NOT NULL REFERENCES currency,
    amount          numeric(20, 2) NOT NULL CHECK (amount > 0),
    used            numeric(20, 2) NOT NULL DEFAULT 0 CHECK (used >= 0),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CHECK (num_nonnulls(portfolio_id, desk_id, counterparty_id) = 1)
);
CREATE INDEX risk_limit_portfolio ON risk_limit (portfolio_id) WHERE portfolio_id IS NOT NULL;
CREATE INDEX risk_limit_desk ON risk_limit (desk_id) WHERE desk_id IS NOT NULL;
CREATE INDEX risk_limit_counterparty ON risk_limit (counterparty_id) WHERE counterparty_id IS NOT NULL;

CREATE TABLE limit_breach (
    breach_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    limit_id    int NOT NULL REFERENCES risk_limit,
    breached_at timestamptz NOT NULL DEFAULT now(),
    used        numeric(20, 2) NOT NULL,
    amount      numeric(20, 2) NOT NULL,
    CHECK (used > amount)
);
CREATE INDEX limit_breach_limit ON limit_breach (limit_id, breached_at DESC);

GRANT USAGE ON SCHEMA risk TO app_readwrite, app_readonly;
GRANT SELECT ON ALL TABLES IN SCHEMA risk TO app_readonly;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA risk TO app_readwrite;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA risk TO app_readwrite;
ALTER DEFAULT PRIVILEGES IN SCHEMA risk GRANT SELECT ON TABLES TO app_readonly;
ALTER DEFAULT PRIVILEGES IN SCHEMA risk GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO app_readwrite;
ALTER DEFAULT PRIVILEGES IN SCHEMA risk GRANT USAGE ON SEQUENCES TO app_readwrite;
RESET ROLE;
