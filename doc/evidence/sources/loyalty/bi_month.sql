select * from loyalty.bi_month
