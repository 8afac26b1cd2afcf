-- title: Bought together
-- chapter: What goes with what
-- about: Pairs of articles that lie in one basket most clearly more often than by chance. The bar says how much more often: 2 is twice as often.
-- view: bi_copurchase
-- column: pair text Articles
-- column: lift times Lift
-- column: both_baskets count Baskets with both
-- column: confidence percent Of baskets with the first
-- column: confidence_back percent Of baskets with the second
-- column: baskets count Of baskets
-- chart: bars x=pair y=lift horizontal=yes label=yes
SELECT coalesce(a_name, a) || ' + ' || coalesce(b_name, b) AS pair, lift, both_baskets, confidence_ab AS confidence, confidence_ba AS confidence_back, baskets
FROM loyalty.bi_copurchase WHERE program_id = :program ORDER BY rank LIMIT 15
-- say
SELECT format('%s: together in {count %s} baskets, {number %s} times as many as by chance.', pair, both_baskets, round(lift::numeric, 1)) FROM q LIMIT 1
