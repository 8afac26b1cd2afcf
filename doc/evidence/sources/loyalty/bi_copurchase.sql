select * from loyalty.bi_copurchase
