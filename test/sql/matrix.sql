-- Who may do what with every object of the extension.  The expected output is the decision: whoever adds an object, or grants something, sees a
-- difference here, decides, and has it reviewed.  `public` is a role that was granted nothing; `admin` has all that the others have.
\set ECHO none
\pset format unaligned
\pset footer off
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS loyalty;
CREATE ROLE loyalty_test_public;
CREATE ROLE loyalty_test_app;
CREATE ROLE loyalty_test_bi;
CREATE ROLE loyalty_test_support;
CREATE ROLE loyalty_test_admin;
SELECT loyalty.grant_app('loyalty_test_app'), loyalty.grant_bi('loyalty_test_bi'), loyalty.grant_support('loyalty_test_support'), loyalty.grant_admin('loyalty_test_admin') \gset ignore_
CREATE TEMP VIEW part AS SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid WHERE d.deptype = 'e' AND e.extname = 'loyalty';
CREATE TEMP VIEW who AS SELECT r AS name, 'loyalty_test_' || r AS role FROM unnest('{public,app,bi,support,admin}'::text[]) r;
\qecho # the schema
SELECT w.name AS who, has_schema_privilege(w.role, 'loyalty', 'USAGE') AS uses, has_schema_privilege(w.role, 'loyalty', 'CREATE') AS creates FROM who w;
CREATE TEMP VIEW cell AS
    SELECT c.oid::regclass AS object, c.relkind, a.attname, a.attnum, w.name AS who,
        concat(CASE WHEN has_column_privilege(w.role, c.oid, a.attnum, 'SELECT') THEN 'r' END, CASE WHEN has_column_privilege(w.role, c.oid, a.attnum, 'INSERT') THEN 'a' END,
            CASE WHEN has_column_privilege(w.role, c.oid, a.attnum, 'UPDATE') THEN 'w' END, CASE WHEN has_column_privilege(w.role, c.oid, a.attnum, 'REFERENCES') THEN 'x' END,
            CASE WHEN has_table_privilege(w.role, c.oid, 'DELETE') THEN 'd' END, CASE WHEN has_table_privilege(w.role, c.oid, 'TRUNCATE') THEN 'D' END, CASE WHEN has_table_privilege(w.role, c.oid, 'TRIGGER') THEN 't' END) AS rights
    FROM part p JOIN pg_class c ON p.classid = 'pg_class'::regclass AND p.objid = c.oid JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped CROSS JOIN who w
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f');
CREATE TEMP VIEW line AS
    SELECT object, relkind, attname, attnum, max(rights) FILTER (WHERE who = 'public') AS public, max(rights) FILTER (WHERE who = 'app') AS app, max(rights) FILTER (WHERE who = 'bi') AS bi,
        max(rights) FILTER (WHERE who = 'support') AS support, max(rights) FILTER (WHERE who = 'admin') AS admin
    FROM cell GROUP BY 1, 2, 3, 4;
\qecho
\qecho # tables: r reads, a inserts, w updates, x refers to, d deletes, D truncates, t adds triggers; columns with the same rights in one line
SELECT object, public, app, bi, support, admin, string_agg(attname, ' ' ORDER BY attnum) AS columns FROM line WHERE relkind <> 'v' GROUP BY object, public, app, bi, support, admin ORDER BY object::text COLLATE "C", min(attnum);
\qecho
\qecho # views
SELECT object, public, app, bi, support, admin, string_agg(attname, ' ' ORDER BY attnum) AS columns FROM line WHERE relkind = 'v' GROUP BY object, public, app, bi, support, admin ORDER BY object::text COLLATE "C", min(attnum);
\qecho
\qecho # sequences: r reads, w sets, u draws
SELECT c.oid::regclass AS sequence, (SELECT string_agg(w.name || ' ' || rights, ', ') FROM who w, concat(CASE WHEN has_sequence_privilege(w.role, c.oid, 'SELECT') THEN 'r' END, CASE WHEN has_sequence_privilege(w.role, c.oid, 'UPDATE') THEN 'w' END, CASE WHEN has_sequence_privilege(w.role, c.oid, 'USAGE') THEN 'u' END) rights WHERE rights <> '') AS who
FROM pg_class c WHERE c.relkind = 'S' AND c.relnamespace = 'loyalty'::regnamespace ORDER BY c.relname COLLATE "C";
CREATE TEMP VIEW routine AS
    SELECT format('%s(%s)', p.proname, replace(oidvectortypes(p.proargtypes), 'loyalty.', '')) AS name,
        concat(p.provolatile, CASE WHEN p.prosecdef THEN 'D' END, CASE WHEN p.prorettype = 'trigger'::regtype THEN 'T' END, CASE WHEN p.prokind = 'p' THEN 'P' END) AS kind,
        (SELECT coalesce(string_agg(w.name, ' '), 'nobody') FROM who w WHERE has_function_privilege(w.role, p.oid, 'EXECUTE')) AS who
    FROM part m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid;
\qecho
\qecho # functions that a role may call: i immutable, s stable, v volatile; D with the owner's rights
SELECT name, kind, who FROM routine WHERE who <> 'nobody' ORDER BY name COLLATE "C";
\qecho
\qecho # functions that only the owner may call; T is a trigger's, P a procedure
SELECT name, kind FROM routine WHERE who = 'nobody' ORDER BY name COLLATE "C";
\qecho
\qecho # types that everybody may use, and those that not
SELECT t.typname AS type, has_type_privilege('loyalty_test_public', t.oid, 'USAGE') AS all FROM part m JOIN pg_type t ON m.classid = 'pg_type'::regclass AND m.objid = t.oid ORDER BY t.typname COLLATE "C";
\qecho
\qecho # what was granted with the right to grant it on
SELECT c.oid::regclass::text AS object, x.grantee::regrole, x.privilege_type FROM pg_class c, aclexplode(c.relacl) x WHERE c.relnamespace = 'loyalty'::regnamespace AND x.is_grantable AND x.grantee <> c.relowner
UNION ALL SELECT p.oid::regprocedure::text, x.grantee::regrole, x.privilege_type FROM pg_proc p, aclexplode(p.proacl) x WHERE p.pronamespace = 'loyalty'::regnamespace AND x.is_grantable AND x.grantee <> p.proowner;
DROP OWNED BY loyalty_test_public, loyalty_test_app, loyalty_test_bi, loyalty_test_support, loyalty_test_admin;
DROP ROLE loyalty_test_public, loyalty_test_app, loyalty_test_bi, loyalty_test_support, loyalty_test_admin;
