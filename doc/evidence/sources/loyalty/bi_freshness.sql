select * from loyalty.bi_freshness
