-- title: Categories in one basket
-- chapter: Sales
-- about: How much more often than by chance two categories lie in one basket: 2 is twice as often, 1 is chance.
-- view: bi_affinity
-- column: name text Category
-- column: other text With
-- column: lift times Lift
-- column: with_both count Baskets with both
-- column: confidence percent Of baskets with the first
-- chart: heat x=other y=name value=lift
WITH a AS (SELECT name, other, lift, with_both, confidence, confidence_back FROM loyalty.bi_affinity WHERE program_id = :program AND kind = 'category'),
     s AS (SELECT name, other, lift, with_both, confidence FROM a UNION ALL SELECT other, name, lift, with_both, confidence_back FROM a),
     top AS (SELECT name, row_number() OVER (ORDER BY sum(with_both) DESC, name) AS place FROM s GROUP BY name)
SELECT s.name, s.other, s.lift, s.with_both, s.confidence FROM s JOIN top t USING (name) JOIN top o ON o.name = s.other WHERE t.place <= 12 AND o.place <= 12 ORDER BY t.place, o.place
-- say
SELECT format('%s and %s lie in one basket %s times as often as by chance.', name, other, round(lift, 1)) FROM q WHERE with_both >= 20 ORDER BY lift DESC, name LIMIT 1
