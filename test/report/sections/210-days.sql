-- title: Day by day
-- chapter: Sales
-- about: Net sales of each of the last 180 days with purchases, and their mean over seven rows.
-- view: bi_day
-- column: day day Day
-- column: week money Seven-day mean
-- column: net_amount money Net sales
-- column: purchases count Purchases
-- column: returns count Returns
-- chart: lines x=day y=net_amount,week quiet=net_amount
SELECT * FROM (SELECT day, round(avg(sum(net_amount)) OVER (ORDER BY day ROWS BETWEEN 6 PRECEDING AND CURRENT ROW), 2) AS week, sum(net_amount) AS net_amount, sum(purchases) AS purchases, sum(returns) AS returns
               FROM loyalty.bi_day WHERE program_id = :program GROUP BY day ORDER BY day DESC LIMIT 180) d ORDER BY day
