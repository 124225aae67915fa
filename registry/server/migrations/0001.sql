-- What people want of a cluster, and what is known of it, as JSON. Their revisions count apart, so
-- that a status that is written is no conflict for somebody who edits the entry.
CREATE TABLE clusters (
  id              TEXT PRIMARY KEY,
  seq             BIGINT NOT NULL UNIQUE,
  alias           TEXT NOT NULL,
  created_at      BIGINT NOT NULL,
  document        TEXT NOT NULL,
  revision        BIGINT NOT NULL,
  status          TEXT NOT NULL,
  status_revision BIGINT NOT NULL
);

-- One row, written first by everything that changes a cluster: writers wait for each other here, and
-- readers see by its random tag whether anything has changed.
CREATE TABLE changes (
  id  BIGINT PRIMARY KEY CHECK (id = 1),
  tag TEXT NOT NULL
);

INSERT INTO changes (id, tag) VALUES (1, 'new');
