/*
 * The schema is made here and not by the control file, so that CREATE
 * EXTENSION fails where somebody else already owns the name.
 */
CREATE SCHEMA loyalty;
COMMENT ON SCHEMA loyalty IS 'A customer-loyalty programme: transactions in, points out, in the same transaction';
GRANT USAGE ON SCHEMA loyalty TO PUBLIC;
