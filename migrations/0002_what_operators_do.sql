-- What operators change while a sale runs, and who changed it.

-- Stock is changed by difference, never set: units may be on their way to buyers. Each change has a number in
-- its sale, and Redis applies change n only on top of change n - 1, so that one that arrives twice, or late,
-- counts once.
--
-- The last change that was asked for …
ALTER TABLE sales ADD COLUMN changes_wanted  bigint NOT NULL DEFAULT 0;
-- … and the last one that products.stock contains, or that was refused. Only the next one may be open: the
-- numbers are the order in which both stores apply them.
ALTER TABLE sales ADD COLUMN changes_settled bigint NOT NULL DEFAULT 0;
ALTER TABLE sales ADD CONSTRAINT sales_one_open_change
    CHECK (changes_settled >= 0 AND changes_wanted IN (changes_settled, changes_settled + 1));

CREATE TABLE stock_changes (
    sale_id      integer     NOT NULL REFERENCES sales (id),
    number       bigint      NOT NULL,
    product_id   bigint      NOT NULL REFERENCES products (id),
    -- The operator's name for it. Asking again under the same name changes nothing more.
    op_id        text        NOT NULL,
    -- More, or fewer.
    units        integer     NOT NULL,
    -- 'wanted': Redis has to be asked whether it has so many left, as orders may wait that the record does not know.
    outcome      text        NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    settled_at   timestamptz,
    PRIMARY KEY (sale_id, number),
    CONSTRAINT stock_changes_once UNIQUE (sale_id, op_id),
    CONSTRAINT stock_changes_units CHECK (units <> 0),
    CONSTRAINT stock_changes_outcome CHECK (outcome IN ('wanted', 'applied', 'refused')),
    CONSTRAINT stock_changes_settled CHECK ((outcome = 'wanted') = (settled_at IS NULL))
);

-- Who changed what, and when: a row for each act, written in the transaction of the act where it has one.
CREATE TABLE operator_actions (
    id      bigint      PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    at      timestamptz NOT NULL DEFAULT now(),
    -- Who they say they are.
    actor   text        NOT NULL,
    -- What was done, in a word: 'pause', 'restock', …
    action  text        NOT NULL,
    sale_id integer,
    -- The rest, for people.
    detail  text        NOT NULL
);
CREATE INDEX operator_actions_by_sale ON operator_actions (sale_id, id DESC);
