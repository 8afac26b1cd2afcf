select * from loyalty.bi_breakage
