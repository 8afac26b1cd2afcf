select * from loyalty.bi_rule_month
