ALTER TABLE guests ADD COLUMN signed timestamptz NOT NULL DEFAULT now();
