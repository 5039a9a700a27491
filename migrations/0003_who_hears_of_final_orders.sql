-- Who wants to hear of every order that became final, and what they have not been told yet.
--
-- An order and the promise to tell of it are one commit: whoever records it, and however soon that process dies
-- afterwards, it is told.

-- A consumer by name. Several processes may work for one.
CREATE TABLE subscribers (
    name       text        PRIMARY KEY,
    -- Orders that became final before are not told.
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT subscribers_name CHECK (name ~ '^[a-z0-9-]{1,64}$')
);

-- One row for each order that a consumer has not acknowledged. Written by the ledger together with the order,
-- gone with the acknowledgement. No foreign keys: a look-up per row would slow the drain down.
CREATE TABLE deliveries (
    subscriber text        NOT NULL,
    order_id   uuid        NOT NULL,
    -- When it may be taken: at once; while somebody has it in hand, when they will have been silent for too long;
    -- after a failure, when it is tried again. PostgreSQL's clock alone.
    due_at     timestamptz NOT NULL DEFAULT now(),
    -- How often it was taken. Also whose it is: who took it the last time may put it off, nobody else.
    attempts   integer     NOT NULL DEFAULT 0,
    -- What the last failed attempt said.
    last_error text,
    PRIMARY KEY (subscriber, order_id)
);
-- What is due next.
CREATE INDEX deliveries_due ON deliveries (subscriber, due_at);
