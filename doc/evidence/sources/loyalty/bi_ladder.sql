select * from loyalty.bi_ladder
