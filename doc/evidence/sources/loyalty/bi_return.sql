select * from loyalty.bi_return
