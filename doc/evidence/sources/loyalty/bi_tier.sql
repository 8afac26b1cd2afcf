select * from loyalty.bi_tier
