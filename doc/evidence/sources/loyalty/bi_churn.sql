select program_id, member_id, purchases, amount, recency_days, signals, reasons from loyalty.bi_churn where signals > 0 order by amount desc limit 1000
