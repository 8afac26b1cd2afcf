-- title: Spent or lost
-- chapter: Points
-- about: Of all points given until the end of each month, the share that was spent and the share that died (breakage).
-- view: bi_breakage
-- column: month month Month
-- column: spent_rate percent Spent
-- column: breakage_rate percent Died
-- chart: lines x=month y=spent_rate,breakage_rate
SELECT month, spent_rate, breakage_rate FROM loyalty.bi_breakage WHERE program_id = :program ORDER BY month
