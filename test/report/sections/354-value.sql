-- title: Still a customer?
-- chapter: Members
-- about: Members by the probability that they will buy again (BG/NBD), and what they are expected to bring within the horizon of the analysis.
-- view: bi_value
-- column: alive text Probability
-- column: members count Members
-- column: expected_amount money Expected
-- chart: bars x=alive y=members line=expected_amount
SELECT format('%s–%s %%', 10 * d, 10 * d + 10) AS alive, count(*) AS members, round(sum(expected_amount), 2) AS expected_amount
FROM (SELECT least(floor(alive * 10), 9) AS d, expected_amount FROM loyalty.bi_value WHERE program_id = :program AND alive IS NOT NULL) v GROUP BY d ORDER BY d
-- say
SELECT format('They are expected to bring {money %s}.', round(sum(expected_amount), 0)) FROM q HAVING sum(expected_amount) > 0
