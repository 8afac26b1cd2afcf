select * from loyalty.bi_store
