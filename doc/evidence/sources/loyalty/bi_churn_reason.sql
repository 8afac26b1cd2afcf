select * from loyalty.bi_churn_reason
