select * from loyalty.bi_rule
