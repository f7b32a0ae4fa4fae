-- A customer platform with what the document's masking pipeline is about: names and e-mails, KYC documents, tokens.
--
--   customer ──< kyc_document;  customer ──< api_token;  customer ──< account ──< payment

CREATE SCHEMA innovate AUTHORIZATION admin_user;
ALTER DATABASE :"database" SET search_path = innovate, public;
SET ROLE admin_user;
SET search_path = innovate;

-- Default privileges first, as the document has it: what is made after this is granted without a word.
ALTER DEFAULT PRIVILEGES IN SCHEMA innovate GRANT SELECT ON TABLES TO readonly_user;
ALTER DEFAULT PRIVILEGES IN SCHEMA innovate GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO app_user;
ALTER DEFAULT PRIVILEGES IN SCHEMA innovate GRANT USAGE ON SEQUENCES TO app_user;
GRANT USAGE ON SCHEMA innovate TO app_user, readonly_user, dev_user;

CREATE TABLE customer (
    customer_id int PRIMARY KEY,
    name        text NOT NULL,
    email       text NOT NULL UNIQUE CHECK (email LIKE '%@%'),
    country     char(2) NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE kyc_document (
    document_id int PRIMARY KEY,
    customer_id int NOT NULL REFERENCES customer,
    kind        text NOT NULL CHECK (kind IN ('passport', 'id card', 'utility bill')),
    number      text NOT NULL,
    body        text NOT NULL,
    verified_at timestamptz
);
CREATE INDEX kyc_document_customer ON kyc_document (customer_id);

CREATE TABLE api_token (
    token_id    int PRIMARY KEY,
    customer_id int NOT NULL REFERENCES customer,
    token       text NOT NULL UNIQUE,
    expires_at  timestamptz NOT NULL
);
CREATE INDEX api_token_customer ON api_token (customer_id);

CREATE TABLE account (
    account_id  int PRIMARY KEY,
    customer_id int NOT NULL REFERENCES customer,
    currency    char(3) NOT NULL,
    balance     numeric(18, 2) NOT NULL DEFAULT 0
);
CREATE INDEX account_customer ON account (customer_id);

CREATE SEQUENCE payment_id_seq AS bigint CACHE 50;
CREATE TABLE payment (
    payment_id bigint PRIMARY KEY DEFAULT nextval('payment_id_seq'),
    account_id int NOT NULL REFERENCES account,
    amount     numeric(18, 2) NOT NULL CHECK (amount <> 0),
    reference  text NOT NULL,
    paid_at    timestamptz NOT NULL DEFAULT now()
);
ALTER SEQUENCE payment_id_seq OWNED BY payment.payment_id;
CREATE INDEX payment_account ON payment (account_id, paid_at DESC);

-- Development: reads everything but what identifies a person, and writes payments and accounts.
GRANT SELECT ON account, payment TO dev_user;
GRANT SELECT (customer_id, country, created_at) ON customer TO dev_user;
GRANT INSERT, UPDATE ON account, payment TO dev_user;
GRANT USAGE ON SEQUENCE payment_id_seq TO dev_user;
RESET ROLE;
