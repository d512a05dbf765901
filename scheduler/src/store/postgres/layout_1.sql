-- Documents, found by kind and id; text in the order of its bytes, as every engine sorts.
CREATE TABLE cardshop_document (
    kind text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    schema integer NOT NULL,
    indexes text NOT NULL, -- JSON: [[name, value], …], as the document gave them
    body text NOT NULL, -- JSON
    PRIMARY KEY (kind, id)
);

-- The same indexes, to find documents by.
CREATE TABLE cardshop_index (
    kind text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    value text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    PRIMARY KEY (kind, name, value, id),
    FOREIGN KEY (kind, id) REFERENCES cardshop_document ON DELETE CASCADE
);
CREATE INDEX cardshop_index_of ON cardshop_index (kind, id);

-- Batches that were carried out: whoever lost the answer asks again, and nothing happens twice.
CREATE TABLE cardshop_batch (
    id text COLLATE "C" PRIMARY KEY,
    made timestamptz NOT NULL DEFAULT now()
);

-- Carries out a batch, or raises CS001 with the number of the first change that is not as expected. `expects`: version
-- the document must have, 0 = it must not exist, -1 = whatever. A change without body removes. False when it was
-- carried out before.
CREATE FUNCTION cardshop_apply(
    batch text, kinds text[], ids text[], expects bigint[], schemas integer[], indexes text[], bodies text[]
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    c record;
BEGIN
    INSERT INTO cardshop_batch (id) VALUES (batch) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    FOR c IN
        SELECT * FROM unnest(kinds, ids, expects, schemas, indexes, bodies)
            WITH ORDINALITY AS t (kind, id, expect, schema, indexes, body, n)
        ORDER BY kind COLLATE "C", id COLLATE "C", n -- one order for all, so that two batches never wait for each other
    LOOP
        IF c.body IS NULL THEN
            DELETE FROM cardshop_document d WHERE d.kind = c.kind AND d.id = c.id;
            CONTINUE;
        ELSIF c.expect = 0 THEN
            INSERT INTO cardshop_document VALUES (c.kind, c.id, 1, c.schema, c.indexes, c.body)
                ON CONFLICT DO NOTHING;
        ELSIF c.expect > 0 THEN
            UPDATE cardshop_document d
                SET version = d.version + 1, schema = c.schema, indexes = c.indexes, body = c.body
                WHERE d.kind = c.kind AND d.id = c.id AND d.version = c.expect;
        ELSE
            INSERT INTO cardshop_document AS d VALUES (c.kind, c.id, 1, c.schema, c.indexes, c.body)
                ON CONFLICT (kind, id) DO UPDATE
                SET version = d.version + 1, schema = c.schema, indexes = c.indexes, body = c.body;
        END IF;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'not as expected' USING ERRCODE = 'CS001', DETAIL = c.n::text;
        END IF;
        DELETE FROM cardshop_index i WHERE i.kind = c.kind AND i.id = c.id;
        INSERT INTO cardshop_index
            SELECT DISTINCT c.kind, e.value ->> 0, e.value ->> 1, c.id FROM json_array_elements(c.indexes::json) e;
    END LOOP;
    RETURN true;
END $$;

-- Carries out a batch that takes a document, unless another is just taking it.
CREATE FUNCTION cardshop_claim(
    claimed_kind text, claimed_id text, claimed_version bigint,
    batch text, kinds text[], ids text[], expects bigint[], schemas integer[], indexes text[], bodies text[]
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM cardshop_batch b WHERE b.id = batch) THEN
        RETURN true;
    END IF;
    PERFORM 1 FROM cardshop_document d
        WHERE d.kind = claimed_kind AND d.id = claimed_id AND d.version = claimed_version
        FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM cardshop_apply(batch, kinds, ids, expects, schemas, indexes, bodies);
    RETURN true;
END $$;
