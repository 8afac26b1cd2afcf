-- title: How fresh each view is
-- chapter: The views
-- about: Kept ones are as fresh as the last run of what keeps them (refresh_analysis, fold_copurchase); the others read the ledger itself.
-- size: wide
-- view: bi_freshness
-- column: view_name code View
-- column: answers text Answers
-- column: kept yes Kept
-- column: fresh text Fresh
SELECT view_name, answers, kept, coalesce(CASE WHEN kept THEN to_char(fresh_at, 'YYYY-MM-DD HH24:MI TZ') ELSE 'always' END, 'never refreshed') AS fresh FROM loyalty.bi_freshness ORDER BY view_name
