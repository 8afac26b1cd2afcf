select * from loyalty.bi_activity
