select * from loyalty.bi_cohort
