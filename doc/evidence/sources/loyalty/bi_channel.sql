select * from loyalty.bi_channel
