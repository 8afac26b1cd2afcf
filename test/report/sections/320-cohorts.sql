-- title: Who comes back: cohorts
-- chapter: Members
-- about: Members by the month of their first purchase, and the share of them that bought again one, two, three... months later.
-- size: wide
-- view: bi_cohort
-- column: cohort month First purchase
-- column: month_offset count Months later
-- column: retention percent Bought
-- column: members count Members
-- column: cohort_members count Of
-- column: amount money Sales
-- chart: heat x=month_offset y=cohort value=retention from=0 xname=yes
SELECT cohort, month_offset, retention, members, cohort_members, amount FROM loyalty.bi_cohort
WHERE program_id = :program AND month_offset BETWEEN 1 AND 24 AND cohort > (SELECT max(cohort) FROM loyalty.bi_cohort WHERE program_id = :program) - interval '25 months' ORDER BY cohort, month_offset
-- say
SELECT format('A month after the first purchase {percent %s} buy again; after six months {percent %s}.', round(sum(members) FILTER (WHERE month_offset = 1) / nullif(sum(cohort_members) FILTER (WHERE month_offset = 1), 0), 4), round(sum(members) FILTER (WHERE month_offset = 6) / nullif(sum(cohort_members) FILTER (WHERE month_offset = 6), 0), 4)) FROM q HAVING count(*) FILTER (WHERE month_offset = 6) > 0
