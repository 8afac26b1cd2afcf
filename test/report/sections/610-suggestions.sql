-- title: What suggestions bring
-- chapter: What goes with what
-- about: Suggestions at the till in each month, those of which something was bought, and what that came to.
-- view: bi_suggestion
-- column: month month Month
-- column: accepted_suggestions count Bought
-- column: others count Not bought
-- column: extra_revenue money Extra revenue
-- column: acceptance percent Bought
-- chart: bars x=month y=accepted_suggestions,others stack=yes line=extra_revenue
SELECT date_trunc('month', day)::date AS month, sum(accepted_suggestions) AS accepted_suggestions, sum(suggestions) - sum(accepted_suggestions) AS others, sum(extra_revenue) AS extra_revenue,
       round(sum(accepted_suggestions) / sum(suggestions), 4) AS acceptance
FROM loyalty.bi_suggestion WHERE program_id = :program GROUP BY 1 ORDER BY 1
-- say
SELECT format('Of {count %s} suggestions {percent %s} led to a purchase, worth {money %s}.', sum(accepted_suggestions + others), round(sum(accepted_suggestions) / sum(accepted_suggestions + others), 4), sum(extra_revenue)) FROM q HAVING sum(accepted_suggestions) > 0
